"""What the real servers serve: a greeting after some work, and a log of who was served when.

`settings.json` in the working directory says name, port and work. Lines of `served.log`:

    begun ID
    ended BEGUN ENDED WAITING ID

with times in nanoseconds of the system's monotonic clock. WAITING is how many connections were in
the listener's queue when the work ended: a server that serves one at a time has not looked at them.
"""

import json
import logging
import time

from flask import Flask, request

with open("settings.json") as file:
    SETTINGS = json.load(file)
LISTENING = "0A"

app = Flask(__name__)
served = open("served.log", "a", buffering=1)


def waiting():
    """Linux shows a listener's queue as its receive queue, and lists listeners first."""
    with open("/proc/net/tcp") as table:
        next(table)
        for line in table:
            _, local, _, state, queues, *_ = line.split()
            if state == LISTENING and local.endswith(f":{SETTINGS['port']:04X}"):
                return int(queues.split(":")[1], 16)
    raise LookupError("this server listens")


@app.get("/ping")
def ping():
    return "pong"


@app.get("/")
def home():
    begun = time.monotonic_ns()
    name = request.headers.get("X-Id", "-")
    served.write(f"begun {name}\n")
    time.sleep(int(request.args.get("takes", SETTINGS["work_milliseconds"])) / 1000)
    served.write(f"ended {begun} {time.monotonic_ns()} {waiting()} {name}\n")
    return f"Hello from {SETTINGS['name']}", {"X-Backend": SETTINGS["name"]}


if __name__ == "__main__":
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app.run(host="127.0.0.1", port=SETTINGS["port"], threaded=False)
