"""The official SDKs whose clients can be guarded; none of them is imported."""

from holdfast.resilience.sdks.boto3 import Boto3
from holdfast.resilience.sdks.requests import Requests
from holdfast.resilience.sdks.sdk import Sdk
from holdfast.resilience.sdks.slack_sdk import SlackSdk
from holdfast.resilience.sdks.stripe import Stripe
from holdfast.resilience.sdks.twilio import Twilio

SDKS: tuple[Sdk, ...] = (Boto3(), Requests(), SlackSdk(), Stripe(), Twilio())
