"""Packaging of microtorrd: the daemon, its client, and the original's commands."""

import re
from pathlib import Path

from setuptools import find_packages, setup

HERE = Path(__file__).parent
VERSION = re.search(r'__version__ = "([^"]+)"', (HERE / "microtorrd/__init__.py").read_text())
assert VERSION is not None, "microtorrd/__init__.py states the version"

REQUIREMENTS = [
    "bencode.py>=4.0",
    "bitarray>=3.0",
    "click>=8.1",
    "flask>=3.0",
    "gevent>=24.2",
    "ifaddr>=0.2",
    "msgspec>=0.18",
    "requests>=2.31",
    "rich>=13.7",
    "sdnotify>=0.3.2",
    "structlog>=24.1",
]
TESTS = [
    "hypothesis>=6.100",
    "libtorrent>=2.0.9",
    "mypy>=1.10",
    "prometheus-client>=0.16",
    "psutil>=5.9",
    "pytest>=8.0",
    "pytest-timeout>=2.3",
    "pytest-xdist>=3.5",
    "redis>=5.0",
    "ruff>=0.5",
    "types-psutil",
    "types-requests",
]

setup(
    name="microtorrd",
    version=VERSION[1],
    description="A peer-to-peer file-sharing daemon for servers, on the BitTorrent wire",
    long_description=(HERE / "README.md").read_text(),
    long_description_content_type="text/markdown",
    license="MIT",
    python_requires=">=3.11",
    packages=find_packages(include=["microtorrd", "microtorrd.*", "mtorrctl", "mtorrctl.*"]),
    package_data={"microtorrd": ["py.typed", "tracker/templates/*.html"], "mtorrctl": ["py.typed"]},
    install_requires=REQUIREMENTS,
    extras_require={
        "redis": ["redis>=5.0"],
        "test": TESTS,
        "bench": ["psutil>=5.9", "libtorrent>=2.0.9", "matplotlib>=3.8"],
    },
    entry_points={
        "console_scripts": [
            "microtorrd = microtorrd.__main__:main",
            "mtorrctl = mtorrctl.__main__:main",
            "MicroTorr = mtorrctl.microtorr:main",
        ]
    },
    classifiers=[
        "Environment :: No Input/Output (Daemon)",
        "Operating System :: POSIX :: Linux",
        "Programming Language :: Python :: 3.11",
        "Topic :: Communications :: File Sharing",
    ],
)
