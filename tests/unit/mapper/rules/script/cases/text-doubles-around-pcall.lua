-- version: 1
-- error: E5056
return function(frame)
  while true do
    pcall(function()
      local text = 'x'
      while true do text = text .. text end
    end)
  end
end
