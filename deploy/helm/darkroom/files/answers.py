"""Ends with 0 where gateways answer at the URL of its argument and a worker is ready; else it says
what is not well."""

import http.client
import sys
from urllib.parse import urlsplit

server = urlsplit(sys.argv[1])
for path in ("/healthz", "/readyz"):
    connection = http.client.HTTPConnection(server.hostname, server.port, timeout=10)
    connection.request("GET", path)
    answer = connection.getresponse()
    print(path, answer.status, answer.read().decode(errors="replace"), flush=True)
    if answer.status != 200:
        sys.exit(
            f"{path} says {answer.status}; without any worker, as with minReplicas 0, /readyz does"
        )
