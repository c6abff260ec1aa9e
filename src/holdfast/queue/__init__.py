"""Deliveries in, events and jobs out: kept before they are acknowledged, handled until they are done."""
