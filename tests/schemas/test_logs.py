import json
import logging
import subprocess
import sys
from typing import Any

from schemas.logs import JsonLines

PROGRAM = """
import logging, threading
from schemas.logs import begin_logging
begin_logging("json", "test")
logging.getLogger("a.b").warning("two\\nlines of %s", "\\u202ename")
for name in ("a.b", "prefect.c", "urban_reid.d"):  # Prefect's loggers, and some of ours, say more than warnings
    logging.getLogger(name).setLevel("INFO")
    logging.getLogger(name).info("told")
logging.getLogger("prefect.c").warning("told by its own handler")
thread = threading.Thread(target=lambda: 1 / 0)
thread.start(); thread.join()
raise RuntimeError("the end")
"""


def test_a_process_writes_json_lines_up_to_its_death() -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60)
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stderr.splitlines()]
    assert [(line["process"], line["logger"], line["level"], line["message"]) for line in lines] == [
        ("test", "a.b", "warning", "two lines of name"),
        ("test", "urban_reid.d", "info", "told"),
        ("test", "urban_reid.fault", "critical", "unexpected ZeroDivisionError: division by zero"),
        ("test", "urban_reid.fault", "critical", "unexpected RuntimeError: the end"),
    ]
    assert all(line["time"].endswith("+00:00") for line in lines)
    assert lines[-1]["traceback"].endswith("RuntimeError: the end") and done.returncode == 1


def test_the_formatter_is_made_as_the_logging_module_makes_one() -> None:
    record = logging.makeLogRecord({"msg": "said", "levelname": "INFO", "name": "x"})
    assert json.loads(JsonLines("default", None, "%").format(record))["process"] == "prefect"
