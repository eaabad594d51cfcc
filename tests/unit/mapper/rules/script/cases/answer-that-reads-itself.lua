-- version: 1
-- error: E5054 E5055
local answer = setmetatable({}, {__index = function() while true do end end})
return function(frame)
  return {answer, answer}
end
