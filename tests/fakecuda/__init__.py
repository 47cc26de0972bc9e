"""A pretended GPU for tests on machines without one: a device of type CUDA in the CPU build of torch.

Its bytes lie in main memory and the CPU's kernels compute on them, so values are the CPU's; but tensors, storages and
generators are CUDA ones, and what a GPU would refuse (tensors of two devices in one operation, a generator of the CPU,
`.numpy()`) is refused. It shows that code keeps to its device, and nothing about speed, numerics or memory.
Run any tests on it, in processes of their own, since it cannot be taken out again:

    python -m tests.fakecuda.build      # compiles, and prints the two variables that follow
    FAKE_CUDA_DEVICES=1 FAKE_CUDA_LIBRARY=... PYTHONPATH=tests/fakecuda/site:. pytest tests/training/stages/test_run.py

Operations that have CUDA kernels only (NCCL, triton, bitsandbytes' own) do not run on it.
"""
