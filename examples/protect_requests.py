"""A session of requests in a guard: GET is repeated, POST only with a key; an open circuit is a ConnectionError."""

import requests

from examples.unreliable import LOST, vendor
from holdfast import Breaker, Policy
from holdfast.resilience.protect import guard_of, protect


def main() -> None:
    """Read through a failure, write with a key, and see the circuit open."""
    policy = Policy(deadline=10, breaker=Breaker(consecutive=3))
    with vendor((503, {}), (200, {}), LOST, (201, {}), (500, {})) as (url, seen), requests.Session() as session:
        crm = protect(session, "crm", policy)

        print("GET", crm.get(f"{url}/people").status_code, "after", len(seen), "requests")
        print("POST", crm.post(f"{url}/people", headers={"Idempotency-Key": "ada-1"}).status_code, seen[2:])

        try:
            for _ in range(10):
                crm.post(f"{url}/people")
        except requests.ConnectionError as error:  # as ever; it is holdfast's CircuitOpen too
            print(type(error).__name__, guard_of(crm).snapshot().circuits[""].state)


if __name__ == "__main__":
    main()
