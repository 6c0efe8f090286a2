"""The version of IMT, written into every output's mark."""

VERSION = "0.1.0"
