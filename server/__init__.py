"""Darkroom: a self-hosted REST inference server for Stable Diffusion."""

from importlib.metadata import version

__version__ = version("darkroom")
