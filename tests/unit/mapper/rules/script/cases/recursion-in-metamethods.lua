-- version: 1
-- error: E5054 E5055
local t = setmetatable({}, {})
getmetatable(t).__index = function(self, key) return self[key + 1] end
return function(frame)
  return { value = t[1] }
end
