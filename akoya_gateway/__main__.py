"""`python -m akoya_gateway` is `akoya-gateway`."""

from akoya_gateway.cli import main

if __name__ == "__main__":
    main()
