"""Build the compiled batch loop; everything else is declared in pyproject.toml."""

from setuptools import Extension, setup

setup(
    ext_modules=[
        Extension(
            "stanflow.target._batch",
            sources=["stanflow/target/batch.c"],
            extra_compile_args=["-O3", "-std=c11", "-pthread"],
            extra_link_args=["-pthread"],
            # Without a C compiler the package still installs; `stanflow doctor` then says so.
            optional=True,
        )
    ]
)
