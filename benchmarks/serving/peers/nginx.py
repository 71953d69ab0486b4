"""nginx answering a constant: what a socket, an HTTP parser and the generator alone allow. Debian's package.

One worker process, no access log, connections kept for any number of requests. It reads and drops the body of a POST,
and its answer is as long as that of a prediction.
"""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

ANSWER = '{"model_name":"scores","outputs":[{"name":"score","shape":[1],"datatype":"FP32","data":[0.0123456]}]}'
CONFIGURATION = """
worker_processes 1;
daemon off;
error_log {folder}/error.log;
pid {folder}/nginx.pid;
events {{ worker_connections 4096; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        location / {{
            default_type application/json;
            return 200 '{answer}';
        }}
    }}
}}
"""


def main(port: int, folder: Path) -> None:
    nginx = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
    if nginx is None:
        raise SystemExit("nginx is not installed; `apt-get install nginx-light`")
    file = folder / "nginx.conf"
    file.write_text(CONFIGURATION.format(folder=folder, port=port, answer=ANSWER))
    os.execv(nginx, [nginx, "-c", str(file), "-p", str(folder), "-e", str(folder / "error.log")])


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
