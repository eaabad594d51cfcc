-- version: 1
-- error: E5055
local thing = setmetatable({}, { __tostring = function() while true do end end })
return function(frame)
  log(thing)
end
