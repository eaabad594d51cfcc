-- version: 1
-- error: E5054
return function(frame)
  error(setmetatable({}, { __tostring = function() while true do end end }))
end
