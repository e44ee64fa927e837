"""`python train.py fit --config configs/bc/lunar_lander.yaml`; the installed command `lit-imitation` is the same."""

from lit_imitation.cli import main

if __name__ == "__main__":
    main()
