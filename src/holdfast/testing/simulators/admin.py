"""A loopback door for whoever runs the simulation: pay an offer, read the ledger, count the faults."""

from collections import Counter
from collections.abc import Mapping, Sequence

from holdfast.testing.faults import Faults
from holdfast.testing.ledger import Ledger
from holdfast.testing.simulators.simulator import Request, Response, Simulator, route
from holdfast.testing.simulators.webhooks import WebhookSimulator


class Admin(Simulator):
    """Served like a vendor, under `/__fake/`; it never fails."""

    vendor = "admin"

    def __init__(
        self, simulators: Sequence[Simulator], *, ledger: Ledger, faults: Faults, webhooks: WebhookSimulator
    ) -> None:
        super().__init__(ledger=ledger)
        self._simulators: Mapping[str, Simulator] = {simulator.vendor: simulator for simulator in simulators}
        self._faults_of_all = faults
        self._webhooks = webhooks

    @route("GET", "/__fake/ledger", "read")
    def read_ledger(self, request: Request) -> Response:
        """Everything that happened, in order."""
        return Response.json(self.ledger.to_json())

    @route("GET", "/__fake/faults", "read")
    def read_faults(self, request: Request) -> Response:
        """How often each fault fired, by `vendor.fault`."""
        return Response.json(dict(sorted(self._faults_of_all.fired.items())))

    @route("GET", "/__fake/webhooks", "read")
    def read_webhooks(self, request: Request) -> Response:
        """How many were sent in which manner, and what became of the forged ones."""
        sent = self._webhooks.sent
        first: dict[str, str] = {}
        for one in sent:
            if one.accepted and not one.manner.forged and one.manner != "lie":
                first.setdefault(one.webhook.key, one.at.isoformat())
        return Response.json(
            {
                "sent": Counter(str(one.manner) for one in sent),
                "statuses": Counter(str(one.status) for one in sent),
                "dropped": len(self._webhooks.dropped),
                "accepted_forgeries": len(self._webhooks.accepted_forgeries),
                "owed": sum(len(simulator.outbox) for simulator in self._simulators.values()),
                "first_accepted": first,
            }
        )

    @route("POST", "/__fake/pay", "write")
    def pay_offer(self, request: Request) -> Response:
        """`{"offer": "…", "vendor": "…"}`: the offer as a payer sees it; without a vendor, whoever made it."""
        asked = request.json()
        offer, vendor = str(asked.get("offer", "")), asked.get("vendor")
        reasons: list[str] = []
        for name, simulator in self._simulators.items():
            if vendor in (None, name):
                try:
                    simulator.pay(offer)
                except LookupError as error:
                    reasons.append(str(error))
                else:
                    return Response.json({"vendor": name})
        return Response.json({"errors": reasons}, status=404)

    @route("POST", "/__fake/calm", "write")
    def calm(self, request: Request) -> Response:
        """No faults and no mischief from now on."""
        self._faults_of_all.calm()
        self._webhooks.calm()
        return Response.json({})

    @route("POST", "/__fake/reset", "write")
    def start_over(self, request: Request) -> Response:
        """Forget everything that happened; plans stay."""
        for simulator in self._simulators.values():
            simulator.reset()
        self.ledger.clear()
        self._faults_of_all.reset()
        self._webhooks.sent.clear()
        self._webhooks.dropped.clear()
        return Response.json({})
