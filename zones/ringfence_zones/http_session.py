"""HTTP sessions to the daemons of a cluster: straight to the host named.

Neither the environment's proxies nor `.netrc` apply, nor are cookies kept: each request says who it is, so a signed
cookie would only age.
"""

from __future__ import annotations

from http import cookiejar
from typing import Any

import requests


def direct_session() -> requests.Session:
    """A new session. Not to be shared between threads."""
    session = requests.Session()
    session.trust_env = False
    session.cookies.set_policy(_NoCookies())
    return session


class _NoCookies(cookiejar.DefaultCookiePolicy):
    def set_ok(self, cookie: Any, request: Any) -> bool:  # noqa: ARG002 - the interface's signature
        return False
