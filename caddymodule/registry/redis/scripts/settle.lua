-- Does nothing but what is queued.

return { lost, save(), {} }
