"""Serves a model repository from a real tritonserver without any container (x86-64 Linux, CPU).

    python deploy/triton/launch.py --repository model_repository --http-port 8500 --grpc-port 8501 --metrics-port 8502

The first launch installs the server into its own environment. What follows `--` goes to tritonserver unchanged.
With `--models image_encoder` it serves that model alone: another server may serve the others of the same repository.
"""

import argparse
import logging
import signal
import sys
from pathlib import Path

import environment
from control import Control
from server import ServerOptions, TritonServer
from supervisor import ProbePolicy, StartFailed, Supervisor


def main() -> int:
    """Serve until a signal; the exit code is 1 when nothing could be served."""
    parser = _parser()
    arguments = parser.parse_args()
    if absent := [name for name in arguments.models if not (arguments.repository / name).is_dir()]:
        parser.error(f"{arguments.repository} holds no model {', '.join(absent)}")
    logging.basicConfig(level=logging.INFO, format="triton: %(message)s", stream=sys.stdout)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # both signals end through the same `finally`
    options = ServerOptions(
        repository=arguments.repository,
        models=arguments.models,
        http_port=arguments.http_port,
        grpc_port=arguments.grpc_port,
        metrics_port=arguments.metrics_port,
        address=arguments.address,
        exit_timeout=arguments.exit_timeout,
        extra=arguments.server_flags,
    )
    policy = ProbePolicy(
        interval=arguments.probe_interval, timeout=arguments.probe_timeout, failures=arguments.failures
    )
    control = Control(options.address, options.http_port, timeout=policy.timeout)
    try:
        server = TritonServer(environment=environment.prepare(arguments.environment), options=options)
        Supervisor(server=server, control=control, policy=policy).run()
    except (environment.EnvironmentFailed, StartFailed) as error:
        logging.getLogger("triton").error("%s", error)  # noqa: TRY400 - the user needs no trace
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    policy = ProbePolicy()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repository", type=_folder, required=True, help="model repository in Triton's layout")
    parser.add_argument("--models", type=_names, default=(), help="names with commas; all of the repository without it")
    parser.add_argument("--http-port", type=int, default=8500)
    parser.add_argument("--grpc-port", type=int, default=8501)
    parser.add_argument("--metrics-port", type=int, default=8502)
    parser.add_argument("--address", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--environment", type=Path, default=environment.DEFAULT_ROOT, help="server's own folder")
    parser.add_argument("--probe-interval", type=float, default=policy.interval, help="seconds between looks")
    parser.add_argument("--probe-timeout", type=float, default=policy.timeout, help="seconds an inference may take")
    parser.add_argument("--failures", type=int, default=policy.failures, help="failed probes before a recovery")
    parser.add_argument("--exit-timeout", type=int, default=10, help="seconds to drain on exit")
    parser.add_argument("server_flags", nargs="*", help="further flags for tritonserver, after --")
    return parser


def _folder(text: str) -> Path:
    path = Path(text)
    if not path.is_dir():
        raise argparse.ArgumentTypeError(f"no such folder: {text}")
    return path


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())


if __name__ == "__main__":
    sys.exit(main())
