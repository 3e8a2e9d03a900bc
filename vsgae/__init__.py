"""The VS-GAE model and the benchmark that it works on; imports nothing of :mod:`study`."""
