"""Benchmarks: this engine and its peers on the same records, in one run (python -m bench --help).

Every measurement has a fresh process of its own (runner.py), which pytest-benchmark, running all in one, could not
give: peak memory is a process's, an open is cold once, and a file that has grown is not as it was. data.py makes the
records, peers.py adapts the contenders, pairs.py brings two replicas of this engine together, network.py makes an
organisation of them, link.py computes what a slow link does to their talk, bench_<topic>.py measures one topic each
and runs alone, __main__.py prints, compare.py tells what got worse, plot.py draws.
"""
