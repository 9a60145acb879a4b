"""Raw HTTP: authentication by user.name, cookies, methods, paths, content types, headers."""

from __future__ import annotations

from wire import Wire


def anonymous(kms: Wire) -> None:
    kms.call("get", "GET", "keys/names", user=None)
    kms.call("options", "OPTIONS", "keys/names", user=None)
    kms.call("post", "POST", "keys", {"name": "anonymous"}, user=None)
    kms.call("unknown-path", "GET", "nothing", user=None)
    kms.call("empty-user", "GET", "keys/names", user="")


def handshake(kms: Wire) -> None:
    """What `PseudoAuthenticator` does before a client's first request."""
    kms.create("shaken")
    kms.call("challenge", "OPTIONS", "key/shaken/_metadata", user=None)
    session = kms.call("login", "OPTIONS", "key/shaken/_metadata").session
    kms.call("request", "GET", "key/shaken/_metadata", user=None, headers=session)
    kms.call("request-with-user", "GET", "key/shaken/_metadata", user="bob", headers=session)


def bad_cookies(kms: Wire) -> None:
    session = kms.call("login", "OPTIONS", "keys/names").session["Cookie"]
    forged = session.replace("u=alice", "u=hdfs")
    kms.call("junk", "GET", "key/absent", user=None, headers={"Cookie": "hadoop.auth=junk"})
    kms.call("junk-with-user", "GET", "key/absent", headers={"Cookie": "hadoop.auth=junk"})
    kms.call("empty", "GET", "key/absent", user=None, headers={"Cookie": "hadoop.auth="})
    kms.call("forged", "GET", "key/absent", user=None, headers={"Cookie": forged})
    kms.call("forged-with-user", "GET", "key/absent", headers={"Cookie": forged})
    kms.call("forged-options", "OPTIONS", "key/absent", user=None, headers={"Cookie": forged})
    kms.call("unquoted", "GET", "key/absent", user=None, headers={"Cookie": session.replace('"', "")})
    kms.call("among-others", "GET", "key/absent", user=None, headers={"Cookie": f"a=b; {session}; c=d"})
    kms.call("other-only", "GET", "key/absent", user=None, headers={"Cookie": "a=b"})


def options(kms: Wire) -> None:
    for step, target in (
        ("root", "/kms/v1/"),
        ("root-with-op", "/kms/v1/?op=something"),
        ("names", "keys/names"),
        ("key", "key/k"),
        ("eek", "key/k/_eek?eek_op=generate&num_keys=150"),
        ("version", "keyversion/k%400"),
        ("open", "keyversion/k%400/_eek?eek_op=decrypt"),
        ("unknown", "/kms/v1/nothing/here"),
    ):
        kms.call(step, "OPTIONS", target)


def wrong_methods(kms: Wire) -> None:
    kms.call("put-names", "PUT", "keys/names")
    kms.call("delete-names", "DELETE", "keys/names")
    kms.call("post-names", "POST", "keys/names", {})
    kms.call("get-keys", "GET", "keys")
    kms.call("put-key", "PUT", "key/k", {})
    kms.call("post-version", "POST", "keyversion/k%400", {})
    kms.call("get-invalidate", "GET", "key/k/_invalidatecache")
    kms.call("post-metadata", "POST", "key/k/_metadata", {})


def unknown_paths(kms: Wire) -> None:
    kms.call("below-v1", "GET", "nothing")
    kms.call("below-keys", "GET", "keys/nothing")
    kms.call("v2", "GET", "/kms/v2/keys/names")
    kms.call("double-slash", "GET", "/kms/v1//keys/names")
    kms.call("capitals", "GET", "/kms/v1/KEYS/NAMES")
    kms.call("root", "GET", "/kms/v1/")
    kms.call("slash", "GET", "/")


def trailing_slash(kms: Wire) -> None:
    kms.create("slashed")
    kms.call("metadata", "GET", "key/slashed/_metadata/")
    kms.call("key", "GET", "key/slashed/")
    kms.call("metadata-of-many", "GET", "keys/metadata/?key=slashed")
    kms.call("version", "GET", "keyversion/slashed%400/")
    kms.call("create", "POST", "keys/", {"name": "slashed-2"})


def head(kms: Wire) -> None:
    kms.create("headed")
    kms.call("metadata", "HEAD", "key/headed/_metadata")
    kms.call("absent", "HEAD", "key/absent/_metadata")
    kms.call("unknown", "HEAD", "nothing")


def content_types(kms: Wire) -> None:
    kms.create("typed")
    for step, content_type in (
        ("with-charset", "application/json; charset=utf-8"),
        ("capitals", "Application/JSON"),
        ("text", "text/plain"),
        ("form", "application/x-www-form-urlencoded"),
        ("none", ""),
    ):
        headers = {"Content-Type": content_type}
        kms.call(f"roll-{step}", "POST", "key/typed", {}, headers=headers)
    kms.call(
        "open-as-text", "POST", "keyversion/typed%400/_eek?eek_op=decrypt", {}, headers={"Content-Type": "text/plain"}
    )


def accepts(kms: Wire) -> None:
    kms.create("accepted")
    for step, accept in (
        ("java-17", "text/html, image/gif, image/jpeg, */*; q=0.2"),
        ("java-8", "text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2"),
        ("json", "application/json"),
        ("html", "text/html"),
    ):
        kms.call(step, "GET", "key/accepted/_metadata", headers={"Accept": accept})


def query_parameters(kms: Wire) -> None:
    kms.create("asked")
    kms.call("repeated-user", "GET", "key/asked?user.name=alice", user="bob")
    kms.call("repeated-eek-op", "GET", "key/asked/_eek?eek_op=generate&eek_op=decrypt")
    kms.call("unknown-parameter", "GET", "key/asked?colour=red")
    kms.call("user-in-capitals", "GET", "key/asked?USER.NAME=alice", user=None)


def json_headers(kms: Wire) -> None:
    """All headers of a JSON answer but date, lengths and the server's name."""
    kms.create("with-headers")
    for step, target in (("ok", "key/with-headers"), ("error", "key/with-headers/_eek")):
        headers = kms.call(step, "GET", target, record=False).headers
        ignored = {"date", "content-length", "transfer-encoding", "server", "set-cookie", "connection", "keep-alive"}
        kept = {name.lower(): value for name, value in headers.items() if name.lower() not in ignored}
        kms.note(step, {name: "<date>" if name == "expires" else value for name, value in kept.items()})


def set_cookie_is_spelled_so(kms: Wire) -> None:
    """Clients before 3.4 look headers up in exactly this case."""
    session = kms.call("login", "OPTIONS", "keys/names", record=False)
    challenged = kms.call("challenge", "OPTIONS", "keys/names", user=None, record=False)
    kms.note("login", {"names": " ".join(sorted(name for name in session.headers if name.lower() == "set-cookie"))})
    names = sorted(name for name in challenged.headers if name.lower() in ("set-cookie", "www-authenticate"))
    kms.note("challenge", {"names": " ".join(names)})


def pages_for_monitoring(kms: Wire) -> None:
    """What TestKMS.testKMSJMX and monitoring look for, and the servlets that Hadoop's web server brings along."""
    for step, target, word in (
        ("jmx", "/kms/jmx", '"name" : "java.lang:type=Memory"'),
        ("jmx-query", "/kms/jmx?qry=Hadoop:service=KMS,name=JvmMetrics", "JvmMetrics"),
    ):
        answer = kms.call(step, "GET", target, record=False)
        found = str(word in answer.body.decode())
        kms.note(step, {"status": str(answer.status), "type": answer.headers.get("Content-Type", ""), "word": found})
    for page in ("conf", "stacks", "logLevel", "logs", "prom"):
        kms.note(page, {"status": str(kms.call("", "GET", f"/kms/{page}", record=False).status)})
    kms.note("anonymous", {"status": str(kms.call("", "GET", "/kms/jmx", user=None, record=False).status)})
