-- version: 1
-- error: E5055
local function nest(depth)
  if depth == 0 then while true do end end
  pcall(nest, depth - 1)
  while true do end
end
return function(frame)
  nest(100)
end
