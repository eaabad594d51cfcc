-- version: 1
-- error: E5054 E5055
local a, b = {}, {}
local meta = {}
meta.__concat = function(x, y) return y .. x end
meta.__lt = function(x, y) return y < x end
meta.__call = function(self, ...) return b(...) end
setmetatable(a, meta)
setmetatable(b, {__call = function(self, ...) return a(...) end, __concat = meta.__concat, __lt = meta.__lt})
return function(frame)
  while true do
    pcall(function() return a .. b end)
    pcall(function() return a < b end)
    pcall(function() return a() end)
  end
end
