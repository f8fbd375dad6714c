"""`keyturn init`: a realm's folder. Makes what is missing, overwrites nothing."""

import secrets
from pathlib import Path
from typing import Annotated

import typer


def register(root: typer.Typer) -> None:
    """Mount on the root command."""
    root.command("init")(init)


def init(
    directory: Annotated[Path, typer.Option("--dir", envvar="KEYTURN_DIR", help="The folder to make or complete.")],
    realm: Annotated[str | None, typer.Option(help="The installation's name, inside every signature.")] = None,
    kafka: Annotated[str | None, typer.Option(help="Bootstrap servers: host:port, comma separated.")] = None,
    prefix: Annotated[str | None, typer.Option(help="Starts every topic's name; ends in a dot.")] = None,
    user_prefix: Annotated[str | None, typer.Option(help="Starts every Kafka user's name; ends in a dot.")] = None,
    security: Annotated[str | None, typer.Option(help="SASL_SSL, SSL, or SASL_PLAINTEXT on loopback.")] = None,
    ca_file: Annotated[Path | None, typer.Option(help="PEM of the authority of Kafka's certificates.")] = None,
    partitions: Annotated[int | None, typer.Option(help="Of each partitioned topic; fixed for ever.")] = None,
    replication_factor: Annotated[int | None, typer.Option(help="Copies of every record.")] = None,
    min_isr: Annotated[int | None, typer.Option(help="Copies that must be written before a record counts.")] = None,
    executor: Annotated[list[str] | None, typer.Option(help="An executor, like s3. May be repeated.")] = None,
    notifier: Annotated[list[str] | None, typer.Option(help="slack, teams, api or console. May be repeated.")] = None,
    agent: Annotated[list[str] | None, typer.Option(help="An agent that signs for itself. May be repeated.")] = None,
    owner: Annotated[list[str] | None, typer.Option(help="Who answers for the agents. May be repeated.")] = None,
    issuer: Annotated[
        list[str] | None, typer.Option(help="OIDC issuer where people log in, as tokens name it. May be repeated.")
    ] = None,
) -> None:
    """Make a realm's keys, passwords, settings and a first directory."""
    from pydantic import ValidationError

    from streams.realm import Realm, RealmFolder, lay_out

    if agent and not owner:
        raise typer.BadParameter("an agent needs persons answerable for it: --owner PERSON")
    given = {
        "realm": realm,
        "kafka": kafka,
        "prefix": prefix,
        "user_prefix": user_prefix,
        "kafka_security": security,
        "kafka_ca_file": ca_file.absolute() if ca_file else None,
        "partitions": partitions,
        "replication_factor": replication_factor,
        "min_insync_replicas": min_isr,
        "executors": executor,
        "notifiers": notifier,
        "agents": agent,
    }
    home = RealmFolder(directory)
    # A folder that is there already says what the realm is; options only add to it.
    known = home.realm().model_dump(include={"realm", "kafka"}) if home.realm_file.exists() else {}
    try:
        wanted = Realm.model_validate(known | {name: value for name, value in given.items() if value is not None})
    except ValidationError as exc:
        wrong = "; ".join(f"{'.'.join(map(str, at['loc'])) or 'realm'}: {at['msg']}" for at in exc.errors())
        raise typer.BadParameter(wrong) from exc
    laid = lay_out(directory, wanted, owner or (), secrets.token_bytes, issuer or ())
    for name in laid.created:
        typer.echo(f"made  {directory / name}")
    typer.echo(f"kept  {len(laid.kept)} file(s) that were there")
    typer.echo(
        f"\nThe root key's fingerprint (SHA-256 of the public key; give it to your auditor by another way):\n"
        f"  {laid.fingerprint}\n  public key: {laid.root_public}"
    )
    typer.echo(
        f"\nNext: complete {directory / 'directory.yaml'} (who people are, and by whose logins), then\n"
        f"  keyturn topics apply --dir {directory}\n"
        f"  keyturn directory apply {directory / 'directory.yaml'} --dir {directory}"
    )
