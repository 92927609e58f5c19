"""A new process that imports a peer, opens its index and answers one query; timed from outside, start to exit."""

from __future__ import annotations

import importlib
import json
import sys
from pathlib import Path

import numpy as np

from tools.bench.compare.peers.base import Peer


def main() -> None:
    """Read module, folder, file of the query, params and setting; print the nearest row."""
    module, folder, asked, params, setting = sys.argv[1:]
    query = np.load(asked)
    peer: Peer = importlib.import_module(module).PEER(Path(folder), json.loads(params), 1)
    peer.open(len(query))
    peer.aim(json.loads(setting))
    print(int(peer.one(query)[0]))
    peer.close()


if __name__ == "__main__":
    main()
