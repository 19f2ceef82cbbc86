"""Signs a JWT with PyJWT: reads {key, header, claims} from standard input, prints the token."""
import json
import sys

import jwt

request = json.load(sys.stdin)
header = request["header"]
print(jwt.encode(request["claims"], request["key"], algorithm=header["alg"], headers=header))
