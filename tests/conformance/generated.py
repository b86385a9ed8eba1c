"""What test.test_multiprocessing_fork and its like consist of; not every installation has those."""

import os

from test import _test_multiprocessing

# The fork server is told to import the module that holds the tests, which is this one.
if hasattr(_test_multiprocessing, "PRELOAD"):
    _test_multiprocessing.PRELOAD[1:] = [__name__]

_test_multiprocessing.install_tests_in_module_dict(globals(), os.environ["CONFORMANCE_METHOD"])
