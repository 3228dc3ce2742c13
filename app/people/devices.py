"""What a browser calls itself, in words that a person recognises their own in."""

import re

# The first that fits: each browser also names the ones that it wants to be taken for.
BROWSERS = (
    (r"Edg(e|A|iOS)?/", "Edge"),
    (r"OPR/|Opera", "Opera"),
    (r"SamsungBrowser/", "Samsung Internet"),
    (r"Firefox/|FxiOS/", "Firefox"),
    (r"Chrome/|CriOS/|Chromium/", "Chrome"),
    (r"Safari/", "Safari"),
)
SYSTEMS = (
    (r"iPhone", "iPhone"),
    (r"iPad", "iPad"),
    (r"Android", "Android"),
    (r"Windows", "Windows"),
    (r"CrOS", "ChromeOS"),
    (r"Mac OS X|Macintosh", "Mac"),
    (r"Linux|X11", "Linux"),
)
LONGEST_PROGRAM = 40  # characters


def device_of(user_agent: str | None) -> str:
    """`Firefox on Windows`; a program by its first word; `unknown` when it says nothing."""
    if not user_agent:
        return "unknown"
    browser = next((name for pattern, name in BROWSERS if re.search(pattern, user_agent)), None)
    system = next((name for pattern, name in SYSTEMS if re.search(pattern, user_agent)), None)
    if browser is None:
        return user_agent.split()[0][:LONGEST_PROGRAM] if user_agent.split() else "unknown"
    return f"{browser} on {system}" if system else browser
