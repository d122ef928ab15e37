"""Run the `akoya-gateway` command as `python -m akoya_gateway`."""

from akoya_gateway.cli import main

if __name__ == "__main__":
    main()
