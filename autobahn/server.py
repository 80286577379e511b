"""Serves the Autobahn testsuite's fuzzing server on loopback, for Python 2.7.

The suite's own command, wstest, listens on every interface; this listens on 127.0.0.1 only.
Usage: server.py SPEC, where SPEC is a fuzzing server specification in JSON, with "key" and
"cert" in it for wss.
"""

import json
import sys
import warnings

# cryptography says at every import that Python 2 is no longer supported. We know.
warnings.filterwarnings("ignore", message="Python 2 is no longer supported")

# Importing the suite installs Twisted's reactor, so this comes before anything of Twisted.
from autobahntestsuite.fuzzing import FuzzingServerFactory  # noqa: E402
from autobahn.twisted.websocket import listenWS  # noqa: E402
from twisted.internet import reactor, ssl  # noqa: E402


def main():
    with open(sys.argv[1]) as file:
        spec = json.load(file)
    context = None
    if "key" in spec:
        context = ssl.DefaultOpenSSLContextFactory(str(spec["key"]), str(spec["cert"]))
    listenWS(FuzzingServerFactory(spec), context, interface="127.0.0.1")
    reactor.run()


main()
