"""Licences that labels may be passed on under, by the names that Hugging Face's dataset cards know."""

from enum import StrEnum

from app.datasets.errors import UnknownLicence


class Licence(StrEnum):
    """Those in use for collections of texts and judgements."""

    CC0 = "cc0-1.0"
    CC_BY = "cc-by-4.0"
    CC_BY_SA = "cc-by-sa-4.0"
    CC_BY_NC = "cc-by-nc-4.0"
    CC_BY_NC_SA = "cc-by-nc-sa-4.0"
    ODC_BY = "odc-by"
    ODBL = "odbl"
    CDLA_PERMISSIVE = "cdla-permissive-2.0"
    APACHE = "apache-2.0"
    MIT = "mit"


UNKNOWN = "unknown"  # what a card says where nobody said more


def licence_of(given: str) -> Licence | None:
    """What a form says; None where nothing is chosen.  Raises UnknownLicence."""
    try:
        return Licence(given) if given else None
    except ValueError as error:
        raise UnknownLicence(given) from error
