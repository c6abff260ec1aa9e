"""secp256k1 for test money: x-only keys, BIP 340 signatures, shared secrets; quick to read, and no secret is safe here.

https://github.com/bitcoin/bips/blob/master/bip-0340.mediawiki
"""

import hashlib
from typing import Final

Jacobian = tuple[int, int, int]

P: Final = 2**256 - 2**32 - 977
N: Final = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141
G: Final[Jacobian] = (
    0x79BE667EF9DCBBAC55A06295CE870B07029BFCDB2DCE28D959F2815B16F81798,
    0x483ADA7726A3C4655DA4FBFC0E1108A8FD17B448A68554199C47D08FFB10D4B8,
    1,
)
INFINITY: Final[Jacobian] = (0, 1, 0)


def public_key(secret: bytes) -> bytes:
    """The x coordinate of the point of this secret."""
    return _bytes(_affine(_times(G, _number(secret)))[0])


def shared_x(secret: bytes, public: bytes) -> bytes:
    """The x coordinate of what both sides can compute."""
    return _bytes(_affine(_times(_lifted(public), _number(secret)))[0])


def sign(message: bytes, secret: bytes) -> bytes:
    """BIP 340, without auxiliary randomness."""
    x, y = _affine(_times(G, _number(secret)))
    own = _number(secret) if y % 2 == 0 else N - _number(secret)
    masked = bytes(a ^ b for a, b in zip(_bytes(own), _tagged("BIP0340/aux", bytes(32)), strict=True))
    nonce = _number(_tagged("BIP0340/nonce", masked + _bytes(x) + message)) % N
    r, odd = _affine(_times(G, nonce))
    nonce = nonce if odd % 2 == 0 else N - nonce
    challenge = _number(_tagged("BIP0340/challenge", _bytes(r) + _bytes(x) + message)) % N
    return _bytes(r) + _bytes((nonce + challenge * own) % N)


def verifies(message: bytes, public: bytes, signature: bytes) -> bool:
    """Whether this is the signature of the message by this key; of bytes of whatever length."""
    if len(public) != 32 or len(signature) != 64:
        return False
    r, s = _number(signature[:32]), _number(signature[32:])
    challenge = _number(_tagged("BIP0340/challenge", signature[:32] + public + message)) % N
    try:
        found = _affine(_plus(_times(G, s), _times(_lifted(public), N - challenge)))
    except ValueError:
        return False
    return s < N and found[0] == r and found[1] % 2 == 0


def _lifted(public: bytes) -> Jacobian:
    x = _number(public)
    square = (pow(x, 3, P) + 7) % P
    y = pow(square, (P + 1) // 4, P)
    if x >= P or y * y % P != square:
        raise ValueError("no point of the curve")
    return x, y if y % 2 == 0 else P - y, 1


def _times(point: Jacobian, factor: int) -> Jacobian:
    result = INFINITY
    for bit in bin(factor)[2:]:
        result = _doubled(result)
        if bit == "1":
            result = _plus(result, point)
    return result


def _doubled(point: Jacobian) -> Jacobian:
    x, y, z = point
    square = y * y % P
    s, m = 4 * x * square % P, 3 * x * x % P
    x3 = (m * m - 2 * s) % P
    return x3, (m * (s - x3) - 8 * square * square) % P, 2 * y * z % P


def _plus(one: Jacobian, other: Jacobian) -> Jacobian:
    if not one[2] or not other[2]:
        return other if not one[2] else one
    (x1, y1, z1), (x2, y2, z2) = one, other
    z1z1, z2z2 = z1 * z1 % P, z2 * z2 % P
    u1, u2 = x1 * z2z2 % P, x2 * z1z1 % P
    s1, s2 = y1 * z2 * z2z2 % P, y2 * z1 * z1z1 % P
    if u1 == u2:
        return _doubled(one) if s1 == s2 else INFINITY
    h, r = u2 - u1, s2 - s1
    hh = h * h % P
    hhh, v = h * hh % P, u1 * hh % P
    x3 = (r * r - hhh - 2 * v) % P
    return x3, (r * (v - x3) - s1 * hhh) % P, h * z1 * z2 % P


def _affine(point: Jacobian) -> tuple[int, int]:
    inverse = pow(point[2], -1, P)  # of the point at infinity there is none: ValueError
    return point[0] * inverse**2 % P, point[1] * inverse**3 % P


def _tagged(tag: str, data: bytes) -> bytes:
    name = hashlib.sha256(tag.encode()).digest()
    return hashlib.sha256(name + name + data).digest()


def _number(data: bytes) -> int:
    return int.from_bytes(data, "big")


def _bytes(number: int) -> bytes:
    return number.to_bytes(32, "big")
