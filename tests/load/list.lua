-- wrk: sends one line of $LOAD_HEADERS with each request, in turn, from line $LOAD_FROM on: a field, or several with
-- tabs between them. LOAD_BODY=1 adds a body of 1 MiB.
local requests, turn = {}, tonumber(os.getenv("LOAD_FROM") or "0")

function init(arguments)
   if os.getenv("LOAD_BODY") then
      wrk.method = "POST"
      wrk.body = string.rep("z", 1048576)
      wrk.headers["Content-Type"] = "application/octet-stream"
   end
   local path = os.getenv("LOAD_HEADERS")
   if not path then
      requests[1] = wrk.format(nil, wrk.path)
      return
   end
   -- Put together by hand: `wrk.format` takes minutes for so many.
   local shared
   for line in io.lines(path) do
      if not shared then
         for name in line:gmatch("([^:\t]+): [^\t]*") do
            wrk.headers[name] = nil
         end
         shared = wrk.format(nil, wrk.path):gsub("\r\n\r\n.*$", "\r\n")
      end
      requests[#requests + 1] = shared .. line:gsub("\t", "\r\n") .. "\r\n\r\n"
   end
end

function request()
   turn = turn % #requests + 1
   return requests[turn]
end
