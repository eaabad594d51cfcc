-- version: 1
-- error: E5055
local function spin()
  while true do end
end
return function(frame)
  while true do
    pcall(spin)
    pcall(pcall, spin)
  end
end
