"""Build the compiled loops; everything else is declared in pyproject.toml."""

from setuptools import Extension, setup

# Without a C compiler the package still installs; `stanflow doctor` then says so.
setup(
    ext_modules=[
        Extension(
            "stanflow.stan._batch",
            sources=["stanflow/stan/batch.c"],
            extra_compile_args=["-O3", "-std=c11", "-pthread"],
            extra_link_args=["-pthread"],
            optional=True,
        ),
        Extension(
            "stanflow.flow._coupling",
            sources=["stanflow/flow/coupling.c"],
            depends=[
                "stanflow/flow/chain_passes.h",
                "stanflow/flow/chain_threads.h",
                "stanflow/flow/coupling_passes.h",
                "stanflow/flow/coupling_precisions.h",
                "stanflow/flow/network_passes.h",
                "stanflow/flow/sinh_arcsinh_passes.h",
            ],
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
