"""`python -m lab`, and `accelerate launch -m lab` or `torchrun -m lab` for several devices."""

from lab.cli import main

if __name__ == "__main__":
    main()
