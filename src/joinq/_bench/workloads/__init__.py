"""What is done to every queue, in a fresh process for each measurement. All contenders run the same code here."""
