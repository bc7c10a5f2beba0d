"""Build the compiled loops; everything else is declared in pyproject.toml."""

from pathlib import Path

from setuptools import Extension, setup

KERNELS = Path("stanflow", "kernels")

# Without a C compiler the package still installs; `stanflow doctor` then says so.
setup(
    ext_modules=[
        Extension(
            "stanflow.kernels._kernels",
            sources=sorted(map(str, KERNELS.glob("*.c"))),
            depends=sorted(map(str, KERNELS.glob("*.h"))),
            # -Wno-psabi: no vector crosses a function's boundary, all of those are inlined.
            extra_compile_args=[
                "-O3",
                "-std=c11",
                "-ffp-contract=fast",
                "-fno-math-errno",
                "-Wno-psabi",
                "-pthread",
            ],
            extra_link_args=["-pthread"],
            optional=True,
        ),
    ]
)
