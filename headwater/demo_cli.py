"""`headwater demo`: the whole loop on one machine, embedded."""

import os
import shutil
import time
from pathlib import Path

import click

from headwater.client import HeadwaterClient
from headwater.demo import Demo, headline, tell, wait_until_up
from headwater.demo_source import SimulatedSource, choose_source
from headwater.errors import HeadwaterError
from headwater.supervisor import Supervisor, exports, run_until_signal, start_parts, start_services


@click.command()
@click.option("--once", is_flag=True, help="End after the summary instead of staying up.")
@click.option("--simulated", is_flag=True, help="Use the simulated world even where the news clicks are.")
def demo(once: bool, simulated: bool) -> None:
    """Run the whole loop on this machine, with embedded Kafka and Redis, and print what was measured."""
    state_dir = Path("var/demo").resolve()
    shutil.rmtree(state_dir, ignore_errors=True)
    state_dir.mkdir(parents=True)
    stats_file, log_path = state_dir / "stream.json", state_dir / "demo.log"
    environment = {
        "HEADWATER_STATE_DIR": str(state_dir),
        "HEADWATER_MODEL_DIR": str(state_dir / "onnx"),
        "HEADWATER_CLOCK": "watermark",
        "HEADWATER_NAMESPACE": "demo",
        "HEADWATER_MAX_ITEM_AGE_S": "0",
    }
    started = time.monotonic()
    try:
        with log_path.open("w", encoding="utf-8") as log, Supervisor(environment, log) as supervisor:
            headline("Starting Kafka, Redis, a stream worker and a server (embedded)")
            os.environ.update(environment)
            settings = start_services(supervisor, None, None)
            start_parts(supervisor, None, stats_file)
            source = SimulatedSource() if simulated else choose_source()
            wait_until_up(settings, supervisor)
            tell(f"up at {settings.serving_url}; every part's log is in {log_path}")
            with HeadwaterClient(settings.serving_url) as client:
                run = Demo(settings, supervisor, source, stats_file, client)
                run.run()
                run.summarise(time.monotonic() - started, Path("var/demo.json"))
            if not once:
                tell(f"in another shell, for other commands: {exports(supervisor.environment)}")
                tell(f"staying up at {settings.serving_url}, Ctrl-C ends")
                run_until_signal(supervisor)
    except HeadwaterError:
        click.echo(f"headwater: the parts' logs are in {log_path}", err=True)
        raise
