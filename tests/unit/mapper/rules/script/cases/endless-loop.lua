-- version: 1
-- error: E5055
return function(frame)
  while true do end
end
