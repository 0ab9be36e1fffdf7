"""Acceptance 9: schemathesis throws generated requests at every operation of the served OpenAPI document.

It fails on a 5xx, and on any answer (status, content type, body) that the document does not name. The seed is fixed, so a
failure repeats. No traffic leaves: the egress guard stands at its default, and a proxy that nobody listens on takes the rest.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

from harness import Server, free_port, jwt

CHECKS = "not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance"


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--max-examples", type=int, default=15, help="generated requests per operation and phase")
    arguments.add_argument("--max-time", type=int, default=150, help="seconds for the whole run")
    arguments.add_argument("--seed", type=int, default=8071)
    arguments.add_argument("--include-path-regex", help="only these paths")
    options = arguments.parse_args()
    quiet = {
        "BELLWIRE_EGRESS__ALLOW": "",
        "BELLWIRE_DELIVERY__PROXY": f"http://127.0.0.1:{free_port()}",
        "BELLWIRE_DELIVERY__RETRY_SCHEDULE": "1h",
    }
    with Server(quiet, name="schema") as server, tempfile.TemporaryDirectory(prefix="bellwire-schema-") as folder:
        token = jwt({"sub": "org_23rb8YdGqMT0qIzpgGwdXfHirMu", "iat": int(time.time()), "exp": int(time.time()) + 3_600})
        configuration = Path(folder) / "schemathesis.toml"
        configuration.write_text("# no settings of the caller's folder apply\n")
        command = [
            str(Path(sys.executable).with_name("schemathesis")),
            "--config-file", str(configuration),
            "run", f"{server.url}/openapi.json",
            # Not an API key: the run revokes keys, and what came after would be 401 and prove nothing.
            "--header", f"Authorization: Bearer {token}",
            "--checks", CHECKS,
            "--phases", "examples,coverage,fuzzing,stateful",
            "--max-examples", str(options.max_examples),
            "--max-time", str(options.max_time),
            "--seed", str(options.seed),
            "--workers", "1",
            "--request-timeout", "10",
            "--continue-on-failure",
            "--suppress-health-check", "all",
            "--generation-database", "none",
            "--warnings", "off",
        ]  # fmt: skip
        if options.include_path_regex:
            command += ["--include-path-regex", options.include_path_regex]
        code = subprocess.run(command, cwd=folder, env={**os.environ, "NO_COLOR": "1"}).returncode
        assert server.is_ready(), "the server still answers after all that"
        request = urllib.request.Request(f"{server.url}/api/v1/app", headers={"Authorization": f"Bearer {token}"})
        assert urllib.request.urlopen(request, timeout=10).status == 200, "the credential held to the end"
        panics = [line for line in server.log().splitlines() if "panicked" in line]
        assert not panics, panics
        return code


if __name__ == "__main__":
    sys.exit(main())
