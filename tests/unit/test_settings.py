"""Settings: a wrong one is refused with a sentence that says which and why, and none is shown with its secrets."""

from pathlib import Path

import pytest
from pydantic import ValidationError

from service.adapters.fetcher import AllowList
from service.cli import main
from service.settings import Settings
from service.settings_report import complaints, misspelt, report
from tests.certificates import make_certificates

HOSTS = ("example.org", "example.org:8443", "minio:9000", "[::1]:80", "::1", "10.0.0.7", "bücher.example", "a.b, c:1")
NO_HOSTS = ("http://example.org", "example.org/path", "user@example.org", "a b", "host:", "host:many", "h:70000", ":80")


def told(**settings: str) -> str:
    with pytest.raises(ValidationError) as failure:
        Settings.model_validate(settings)
    return "\n".join(complaints(failure.value))


@pytest.mark.parametrize("hosts", HOSTS)
def test_a_list_of_hosts_is_accepted_and_the_fetcher_reads_it(hosts: str) -> None:
    assert len(AllowList.parse(Settings(fetch_allow=hosts).fetch_allow).hosts) == hosts.count(",") + 1


@pytest.mark.parametrize("host", [*NO_HOSTS, "*.example.org"])
def test_what_is_no_host_is_refused_by_name(host: str) -> None:
    assert f"OVSAM_FETCH_ALLOW is wrong: {host!r}" in told(fetch_allow=f"example.org,{host}")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("port", "many", "valid integer"),
        ("port", "65536", "less than or equal to 65535"),
        ("max_points", "0", "greater than or equal to 1"),
        ("request_seconds", "0", "greater than 0"),
        ("log_level", "loud", "must be debug, info, warning or error"),
        ("log_format", "xml", "'text' or 'json'"),
        ("triton_url", "triton", "'triton' has no port"),
        ("triton_url", "a:8001,http://b:8001", "'http://b:8001' is not a host or host:port"),
        ("triton_encoder_url", "encoder", "'encoder' has no port"),
        ("triton_encoder_url", "encoder:8001", "needs OVSAM_TRITON_URL"),
        ("redis_url", "localhost:6379", "must begin with one of redis://, rediss://, unix://"),
        ("redis_url", "redis+sentinel://one:26379,two:26379", "names no master"),
        ("redis_url", "rediss://r?ssl_ca_certs=/nowhere.pem", "names ssl_ca_certs=/nowhere.pem, which is no file"),
        ("traces_url", "collector:4317", "must be http://host:port or https://host:port"),
        ("tls_cert", "/nowhere.pem", "does not point to a file"),
        ("grpc_port", "8000", "is the port of OVSAM_PORT already"),
        ("metrics_port", "8000", "is the port of OVSAM_PORT already"),
    ],
)
def test_a_wrong_value_is_named_with_its_reason(name: str, value: str, reason: str) -> None:
    sentence = told(**{name: value})
    assert sentence.startswith(f"the setting OVSAM_{name.upper()} is wrong: ")
    assert reason in sentence


def test_two_ports_may_not_be_one() -> None:
    assert "OVSAM_METRICS_PORT is wrong: is the port of OVSAM_GRPC_PORT" in told(grpc_port="9000", metrics_port="9000")
    assert Settings(port=0, grpc_port=0, metrics_port=0).metrics_port == 0


@pytest.mark.parametrize("side", ["tls", "triton"])
def test_a_certificate_needs_its_own_key(tmp_path: Path, side: str) -> None:
    made = make_certificates(tmp_path)
    cert, key = str(made.server), str(made.server_key)
    assert "go together" in told(**{f"{side}_cert": cert})
    assert "go together" in told(**{f"{side}_key": key})
    assert "do not belong together" in told(**{f"{side}_cert": cert, f"{side}_key": str(made.client_key)})
    assert Settings.model_validate({f"{side}_cert": cert, f"{side}_key": key})


def test_an_authority_must_be_a_certificate(tmp_path: Path) -> None:
    empty = tmp_path / "empty.pem"
    empty.write_text("nothing")
    assert "cannot be read as PEM" in told(triton_ca=str(empty))
    assert "cannot be read as PEM" in told(grpc_client_ca=str(empty))
    assert Settings.model_validate({"triton_ca": ""}).triton_ca is None


def test_passwords_are_masked_wherever_they_stand() -> None:
    settings = Settings(
        redis_url="redis://user:hunter2@redis:6379/0?password=hunter3&db=1", traces_url="https://u:hunter4@host:4317"
    )
    lines = list(report(settings))
    assert len(lines) == len(Settings.model_fields)
    assert "hunter" not in "\n".join(lines)
    assert "OVSAM_REDIS_URL=redis://***@redis:6379/0?password=***&db=1" in lines
    assert "OVSAM_TRITON_SHARED_MEMORY=false" in lines
    assert "OVSAM_TLS_CERT=" in lines


def test_a_refused_url_is_told_without_its_password() -> None:
    sentence = told(redis_url="http://:hunter2@redis:6379/0")
    assert "hunter2" not in sentence
    assert "http://***@redis:6379/0" in sentence


def test_a_misspelt_variable_is_told_and_a_foreign_one_is_not() -> None:
    found = list(misspelt(["OVSAM_MAX_PROMTS", "OVSAM_MAX_PROMPTS", "OVSAM_GATEWAY_SERVICE_HOST", "PATH", "OVSAM_URL"]))
    assert found == ["OVSAM_MAX_PROMTS is no setting; is OVSAM_MAX_PROMPTS meant?"]


@pytest.mark.parametrize("command", ["serve", "config"])
def test_a_misspelt_variable_ends_the_command(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OVSAM_REDIS_ULR", "redis://redis")
    assert main([command]) == 2
    assert "is OVSAM_REDIS_URL meant?" in capsys.readouterr().err


def test_the_command_prints_what_is_in_force(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("OVSAM_MAX_PROMPTS", "7")
    monkeypatch.setenv("OVSAM_REDIS_URL", "redis://:hunter2@redis")
    assert main(["config"]) == 0
    printed = capsys.readouterr().out
    assert "OVSAM_MAX_PROMPTS=7\n" in printed
    assert "OVSAM_REDIS_URL=redis://***@redis\n" in printed
