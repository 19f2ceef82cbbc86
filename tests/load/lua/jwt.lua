-- A JWT check for nginx's Lua module over OpenSSL by FFI: the least a Lua gateway would cost.
local ffi = require "ffi"
local cjson = require "cjson.safe"
local base64 = require "ngx.base64"
local C = ffi.C
pcall(ffi.cdef, [[
typedef struct bio_st BIO;
typedef struct evp_pkey_st EVP_PKEY;
typedef struct evp_md_ctx_st EVP_MD_CTX;
typedef struct evp_md_st EVP_MD;
BIO *BIO_new_mem_buf(const void *buf, int len);
EVP_PKEY *PEM_read_bio_PUBKEY(BIO *bp, EVP_PKEY **x, void *cb, void *u);
EVP_MD_CTX *EVP_MD_CTX_new(void);
int EVP_MD_CTX_reset(EVP_MD_CTX *ctx);
const EVP_MD *EVP_sha256(void);
int EVP_DigestVerifyInit(EVP_MD_CTX *ctx, void **pctx, const EVP_MD *type, void *e, EVP_PKEY *pkey);
int EVP_DigestVerify(EVP_MD_CTX *ctx, const unsigned char *sig, size_t siglen, const unsigned char *tbs, size_t tbslen);
]])

local M = {}
M.__index = M

function M.new(path, algorithm, issuer, audience)
   local file = assert(io.open(path))
   local pem = file:read("*a")
   file:close()
   local key = C.PEM_read_bio_PUBKEY(C.BIO_new_mem_buf(pem, #pem), nil, nil, nil)
   assert(key ~= nil, "no key in " .. path)
   return setmetatable({ key = key, algorithm = algorithm, issuer = issuer, audience = audience,
                         context = C.EVP_MD_CTX_new(), digest = C.EVP_sha256() }, M)
end

function M:verify(token)
   local header, payload, signature = token:match("^([%w_-]+)%.([%w_-]+)%.([%w_-]+)$")
   if not header then return nil end
   local decoded = cjson.decode(base64.decode_base64url(header) or "")
   if not decoded or decoded.alg ~= self.algorithm then return nil end
   signature = base64.decode_base64url(signature)
   if not signature then return nil end
   C.EVP_MD_CTX_reset(self.context)
   if C.EVP_DigestVerifyInit(self.context, nil, self.digest, nil, self.key) ~= 1 then return nil end
   if C.EVP_DigestVerify(self.context, signature, #signature, token, #header + #payload + 1) ~= 1 then return nil end
   local claims = cjson.decode(base64.decode_base64url(payload) or "")
   if not claims or claims.iss ~= self.issuer or claims.aud ~= self.audience then return nil end
   if type(claims.exp) ~= "number" or claims.exp < ngx.time() then return nil end
   return claims
end

function M:check()
   local field = ngx.var.http_authorization
   local claims = field and field:sub(1, 7) == "Bearer " and self:verify(field:sub(8))
   if not claims then return ngx.exit(401) end
   ngx.req.set_header("X-Auth-Sub", claims.sub)
end

return M
