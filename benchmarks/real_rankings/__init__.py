"""Reward models fitted by our recipe to what real people judged, against "the longer text wins"."""
