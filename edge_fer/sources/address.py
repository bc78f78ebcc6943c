"""Addresses of streams: what of them may be shown. Cameras take their password in the URL."""

from __future__ import annotations

import re

_QUOTED = re.compile(r"(?<=[\"'])([a-z]+://)[^/?#@:\"']+:[^\"']*@", re.IGNORECASE)  # spaces and all
# user:password@ up to the last @ of the address; a password may hold /, ? or # that nobody escaped.
_USER = re.compile(r"(?<=://)[^\s/?#\"']*@|(?<=://)[^\s/?#@:\"']+:(?!\d+(?:[/?#\s\"']|$))[^\s\"']*@")
_SECRET = r"(?:user|usr|login|pass|pwd|pw\b|secret|token|auth|key|sig|credential)"
# Some cameras take them in the path: /user=admin_password=secret_channel=1.sdp
_QUERY = re.compile(rf"([?&;#/][^=&#/\s\"']*{_SECRET}[^=&#/\s\"']*=)[^&#\s\"']+", re.IGNORECASE)
_PROPERTY = re.compile(rf"((?:^|\s)[\w-]*{_SECRET}[\w-]*\s*=\s*)(?:\"[^\"]*\"|'[^']*'|\S+)", re.IGNORECASE)


def shown(address: str) -> str:
    """Return a URL or a GStreamer pipeline without user name, password, token and the like."""
    without_user = _USER.sub("", _QUOTED.sub(r"\1", address))
    without_query = _QUERY.sub(r"\1***", without_user)
    return _PROPERTY.sub(r"\1***", without_query)
