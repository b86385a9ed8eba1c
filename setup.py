"""Builds the extension module; everything else is in pyproject.toml."""

from setuptools import setup

setup(cffi_modules=["csrc/ffi_build.py:ffibuilder"])
