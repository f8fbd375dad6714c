"""Serves ministack, and puts right what it tells otherwise than AWS. Run as a program, with ministack's own packages:

    python -I -S server.py PACKAGES CONFIG

It imports nothing of ours. What it puts right, each because an executor rests on it:

1. Nobody is root. ministack takes some keys for root and asks them for no signature; here every key is verified.
2. AttachPolicy: a policy that does not exist is refused, and so is the eleventh on one identity (IAM's quotas).
3. SetDefaultPolicyVersion exists.
4. `iam:PolicyARN`, `iam:PermissionsBoundary` and `cloudformation:ChangeSetName` are there for conditions to ask for,
   and a resource with a path is named with its path.
5. AssumeRole: no session is longer than its role allows, and who sets a source identity needs the right to.
6. ministack's own unauthenticated administration (reset, configuration) is not served.
"""

# pyright: reportMissingImports=false
import asyncio
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

HOST = "127.0.0.1"
ATTACHED_POLICIES = 10
"""IAM and STS quotas: managed policies attached to a role, a user, a group, before anybody asked for more."""
DEFAULT_SESSION_SECONDS = 3600
SERVED = ("/_ministack/health", "/_ministack/cfn-")
"""Of ministack's own pages: whether it lives, and what a stack's wait conditions answer to (with a token)."""

Answer = tuple[int, dict[str, str], bytes]
Form = Mapping[str, Any]


def one(form: Form, name: str) -> str:
    """A parameter of a request's form; empty when it is not there."""
    value = form.get(name, "")
    return str(value[0] if isinstance(value, list) else value)


def correct_iam(iam: Any) -> None:
    """Attaching refuses what AWS refuses, and a version can be made the default one."""
    stores = {"Role": iam._roles, "User": iam._users, "Group": iam._groups}

    def attaching(kind: str, attach: Callable[[Form], Answer]) -> Callable[[Form], Answer]:
        def handle(form: Form) -> Answer:
            entity = stores[kind].get(one(form, f"{kind}Name"))
            arn = one(form, "PolicyArn")
            if entity is not None and iam._lookup_policy(arn) is None:
                return refused(iam, 404, "NoSuchEntity", f"Policy {arn} does not exist or is not attachable.")
            attached = [] if entity is None else entity.get("AttachedPolicies", [])
            if len(attached) >= ATTACHED_POLICIES and arn not in attached:
                message = f"Cannot exceed quota for PoliciesPer{kind}: {ATTACHED_POLICIES}"
                return refused(iam, 409, "LimitExceeded", message)
            return attach(form)

        return handle

    def set_default(form: Form) -> Answer:
        policy = iam._policies.get(one(form, "PolicyArn"))
        chosen = one(form, "VersionId")
        if policy is None or chosen not in policy["Versions"]:
            return refused(iam, 404, "NoSuchEntity", f"Policy {one(form, 'PolicyArn')} version {chosen} not found.")
        for name, version in policy["Versions"].items():
            version["IsDefaultVersion"] = name == chosen
        policy["DefaultVersionId"] = chosen
        return iam._xml(200, "SetDefaultPolicyVersionResponse", "", ns="iam")  # type: ignore[no-any-return]

    for kind in stores:
        name = f"Attach{kind}Policy"
        iam._IAM_HANDLERS[name] = attaching(kind, iam._IAM_HANDLERS[name])
    iam._IAM_HANDLERS["SetDefaultPolicyVersion"] = set_default


def correct_conditions(actions: Any, iam: Any) -> None:
    """What a statement's Resource and Condition are compared with."""
    stores = (("RoleName", iam._roles), ("UserName", iam._users), ("GroupName", iam._groups))
    context, resource = actions.request_tag_context, actions.extract_resource_arn

    def named(form: Form) -> Mapping[str, Any] | None:
        return next((store.get(one(form, name)) for name, store in stores if one(form, name)), None)

    def with_iam_keys(service: str, action: str, body: bytes, form: Form) -> dict[str, Any]:
        keys: dict[str, Any] = dict(context(service, action, body, form))
        if service == "iam":
            whole = {**parse_qs(body.decode("utf-8", errors="replace")), **form}
            if arn := one(whole, "PolicyArn"):
                keys["iam:PolicyARN"] = arn
            if boundary := (named(whole) or {}).get("PermissionsBoundary"):
                keys["iam:PermissionsBoundary"] = boundary
        if service == "cloudformation":
            whole = {**parse_qs(body.decode("utf-8", errors="replace")), **form}
            if change_set := one(whole, "ChangeSetName"):
                keys["cloudformation:ChangeSetName"] = change_set
        return keys

    def with_path(service: str, method: str, path: str, headers: Any, body: bytes, form: Form, *place: str) -> str:
        if service == "iam" and (entity := named({**parse_qs(body.decode("utf-8", errors="replace")), **form})):
            return str(entity["Arn"])
        return str(resource(service, method, path, headers, body, form, *place))

    actions.request_tag_context = with_iam_keys
    actions.extract_resource_arn = with_path


def correct_sts(sts: Any, iam: Any, evaluator: Any) -> None:
    """AssumeRole keeps the role's own limits."""
    handle = sts.handle_request

    async def handled(method: str, path: str, headers: Any, body: bytes, query: Form) -> Answer:
        form = {**query, **parse_qs(body.decode("utf-8", errors="replace"))}
        arn = one(form, "RoleArn")
        role = iam._roles.get(arn.rpartition("/")[2])
        if one(form, "Action") == "AssumeRole" and role is not None:
            most = int(role.get("MaxSessionDuration") or DEFAULT_SESSION_SECONDS)
            if int(one(form, "DurationSeconds") or DEFAULT_SESSION_SECONDS) > most:
                message = "The requested DurationSeconds exceeds the MaxSessionDuration set for this role."
                return refused(sts, 400, "ValidationError", message, "sts")
            if one(form, "SourceIdentity") and not may_set_identity(headers, query, arn, role):
                message = f"not authorized to perform: sts:SetSourceIdentity on resource: {arn}"
                return refused(sts, 403, "AccessDenied", message, "sts")
        answer: Answer = await handle(method, path, headers, body, query)
        return answer

    def may_set_identity(headers: Any, query: Form, arn: str, role: Mapping[str, Any]) -> bool:
        caller = sts._caller_identity(headers, query)
        if not isinstance(caller, dict):
            return False
        principal = evaluator.resolve_principal(caller["accessKey"], caller["accountId"])
        wanted = evaluator.EvalContext(
            principal_arn=caller["userArn"],
            principal_type=caller["principalType"],
            principal_account=caller["accountId"],
            action="sts:SetSourceIdentity",
            resource_arn=arn,
            region="",
            principal_keys=caller["principalKeys"],
        )
        allowed = evaluator.evaluate(wanted, principal.policies, *principal.limits).decision == "Allow"
        return allowed and bool(
            evaluator.evaluate_trust_policy(role["AssumeRolePolicyDocument"], caller["userArn"], wanted)
        )

    sts.handle_request = handled


def refused(service: Any, status: int, code: str, message: str, namespace: str = "iam") -> Answer:
    """A no in the service's own form."""
    answer: Answer = service._error(status, code, message, ns=namespace)
    return answer


def provision(iam: Any, config: Mapping[str, Any]) -> None:
    """Make the identities that are missing; keys and rights are those of the configuration, whatever was kept."""

    def make(handler: str, form: Form) -> None:
        status, _, body = iam._IAM_HANDLERS[handler](form)
        if status not in {HTTPStatus.OK, HTTPStatus.CONFLICT}:
            raise SystemExit(f"{handler}: {body.decode()}")

    for user in config["users"]:
        make("CreateUser", {"UserName": user["name"]})
        make("PutUserPolicy", {"UserName": user["name"], "PolicyName": "own", "PolicyDocument": user["policy"]})
        iam._access_keys[user["access_key"]] = {
            "UserName": user["name"],
            "AccessKeyId": user["access_key"],
            "SecretAccessKey": user["secret_key"],
            "Status": "Active",
            "CreateDate": iam._now(),
        }
    for role in config["roles"]:
        make("CreateRole", {"RoleName": role["name"], "AssumeRolePolicyDocument": role["trust"]})
        make("PutRolePolicy", {"RoleName": role["name"], "PolicyName": "own", "PolicyDocument": role["policy"]})


def guarded(app: Any) -> Callable[[Any, Any, Any], Awaitable[None]]:
    """The application without its own administration."""

    async def guard(scope: Any, receive: Any, send: Any) -> None:
        path = scope.get("path", "")
        if path.startswith(("/_ministack", "/_localstack")) and not path.startswith(SERVED):
            await send({"type": "http.response.start", "status": HTTPStatus.NOT_FOUND, "headers": []})
            await send({"type": "http.response.body", "body": b""})
            return
        await app(scope, receive, send)

    return guard


async def serve(app: Any, port: int) -> None:
    """Serve until SIGTERM or SIGINT; then ministack writes down what it has."""
    from hypercorn.asyncio import serve as run  # noqa: PLC0415  found among ministack's packages
    from hypercorn.config import Config  # noqa: PLC0415

    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)

    async def stopped() -> None:
        await stop.wait()

    config = Config()
    config.bind = [f"{HOST}:{port}"]
    config.keep_alive_timeout = 75
    config.graceful_timeout = 1
    config.accesslog = None
    await run(guarded(app), config, shutdown_trigger=stopped)


def main(packages: str, config_file: str) -> None:
    """Correct, provision, serve."""
    sys.path.insert(0, packages)
    from ministack import app  # noqa: PLC0415
    from ministack.core import iam_actions, iam_evaluator  # noqa: PLC0415
    from ministack.services import iam, sts  # noqa: PLC0415

    config = json.loads(Path(config_file).read_text(encoding="utf-8"))
    if not app.AUTH:
        raise SystemExit("AUTH=true is not set: ministack would enforce nothing")
    iam_evaluator.is_root_access_key = sts.is_root_access_key = lambda _key: False
    correct_iam(iam)
    correct_conditions(iam_actions, iam)
    correct_sts(sts, iam, iam_evaluator)
    load = app._load_persisted_state

    def load_and_provision() -> None:
        load()
        provision(iam, config)

    # Called as it starts, before it listens: what was kept comes first.
    app._load_persisted_state = load_and_provision
    asyncio.run(serve(app.app, int(config["port"])))


if __name__ == "__main__":
    main(*sys.argv[1:])
