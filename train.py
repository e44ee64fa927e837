"""Runs the command `lit-imitation` from a checkout: `python train.py fit --config bc/lunar_lander`."""

from lit_imitation.cli import main

if __name__ == "__main__":
    main()
